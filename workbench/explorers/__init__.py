"""One explorer per theme: methods and sources, gathered from folders, shown in one view."""
