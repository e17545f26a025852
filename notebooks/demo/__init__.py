"""Behind ``make demo``: running notebooks, checking the quickstart's numbers, writing pages."""
