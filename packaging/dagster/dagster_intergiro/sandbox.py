# SPDX-License-Identifier: Apache-2.0
"""A sandbox on loopback that imitates Intergiro: ``python -m dagster_intergiro.sandbox --port 8765``.

It needs the extra ``sandbox``.
"""

from __future__ import annotations

from intergiro_provider.sandbox import Sandbox

__all__ = ["Sandbox"]

if __name__ == "__main__":
    from intergiro_provider.sandbox.__main__ import main

    main()
