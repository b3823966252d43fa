"""Display tables and text reports for the terminal, Markdown, LaTeX, HTML and CSV."""
