"""Load every public name where nothing but the wheel, and what it asks for, is installed."""

from importlib import import_module

for name in ("azure.communication.common", "azure.communication.common.aio"):
    module = import_module(name)
    assert "site-packages" in (module.__file__ or ""), module.__file__
    print(name, *(getattr(module, public) for public in module.__all__), sep="\n    ")
