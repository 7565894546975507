"""Reports: documents of sections, tables and pictures as Markdown and HTML, plots, and panels of images."""
