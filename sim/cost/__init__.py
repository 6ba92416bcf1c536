"""How long an engine step takes, what memory is left for keys and values, how much energy it draws.

`build.build_step_cost` makes the compiled step cost of a deployment, `profile.load_engine_profile` reads what an engine costs on the host,
`memory.memory_budget` accounts for the memory. Pure functions of plain numbers; nothing here knows a scheduler.
"""
