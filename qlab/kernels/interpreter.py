"""Triton's interpreter, switched on after triton was imported.

Triton reads TRITON_INTERPRET where a function is defined. Our kernels are defined after the switch, but the library's
own functions, such as `tl.sum` and `tl.zeros`, when triton is imported; and transformers, torch's compiler or
bitsandbytes may have done that long before.
"""

from __future__ import annotations

import os
import sys


def switch_on() -> None:
    """Interpret every kernel that is defined from now on."""
    os.environ["TRITON_INTERPRET"] = "1"
    if "triton" not in sys.modules:
        return  # its own functions will be defined with the switch on
    from triton.runtime.interpreter import InterpretedFunction
    from triton.runtime.jit import JITFunction

    for name, module in list(sys.modules.items()):
        if name.startswith("triton.language"):
            for key, value in list(vars(module).items()):
                if isinstance(value, JITFunction):
                    setattr(module, key, InterpretedFunction(value.fn))
