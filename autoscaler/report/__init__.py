"""From a finished run to figures, files, a page and a summary; and back again, to check them."""
