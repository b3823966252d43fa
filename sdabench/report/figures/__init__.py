"""Figures: one module for each kind, with ``frame(…)``, which returns its data, and ``draw(frame, theme)``.

``frame`` returns a tidy frame with the columns that the module documents in ``COLUMNS``. ``draw`` makes a
:class:`matplotlib.figure.Figure` of such a frame, and :func:`sdabench.report.figures.style.save` writes it.
"""
