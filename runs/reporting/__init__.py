"""From numbers to a page: report.html and its parts."""
