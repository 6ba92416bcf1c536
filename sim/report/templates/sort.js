document.querySelectorAll("table.sortable").forEach(table => {
  const body = table.tBodies[0];
  const value = (row, i) => { const c = row.cells[i]; return c.dataset.sort ?? c.textContent; };
  [...table.tHead.rows[0].cells].forEach((head, i) => {
    head.tabIndex = 0;
    const sort = () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      [...head.parentNode.cells].forEach(h => h.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const rows = [...body.rows].sort((a, b) => {
        const x = value(a, i), y = value(b, i), m = parseFloat(x), n = parseFloat(y);
        const order = isNaN(m) || isNaN(n) ? x.localeCompare(y) : m - n;
        return up ? order : -order;
      });
      body.append(...rows);
    };
    head.addEventListener("click", sort);
    head.addEventListener("keydown", e => { if (e.key === "Enter") sort(); });
  });
  const filter = table.parentNode.previousElementSibling;
  if (filter && filter.matches("input.filter")) filter.addEventListener("input", () => {
    const words = filter.value.toLowerCase().split(/\s+/);
    for (const row of body.rows) row.hidden = !words.every(w => row.textContent.toLowerCase().includes(w));
  });
});
