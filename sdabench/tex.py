"""Mark text that the registry defines, which alone may have mathematics."""


class Tex(str):
    """Text of the registry with mathematics between dollars, as in ``A$^2$Net``.

    Dollars of any other text are dollars: names of files and classes are no LaTeX.
    """

    __slots__ = ()
