"""Mark text that the registry defines, which alone may have mathematics."""

import re

# Letters and digits, raised or lowered. No command of LaTeX, which could read a file.
MATH = re.compile(r"(\$(?:[_^]?[A-Za-z0-9]|[_^]\{[A-Za-z0-9]+\})+\$)")


class Tex(str):
    """Text of the registry with mathematics between dollars, as in ``A$^2$Net``: see :data:`MATH`.

    Dollars of any other text are dollars: names of files and classes are no LaTeX.
    """

    __slots__ = ()
