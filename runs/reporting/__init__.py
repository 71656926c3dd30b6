"""Make a page of numbers: report.html and its parts."""
