"""What the study ``select`` is made of: what is tried for each engine (`tries`), facts beside the figures (`facts`), the advice (`advice`)."""
