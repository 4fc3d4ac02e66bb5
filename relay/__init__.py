"""Postferry's engine. `core` decides, `store` remembers, `net` talks; the modules beside them tell the plot."""
