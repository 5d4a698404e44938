"""How complete datasets are, by visit: what is expected, found, proven and registered; tables and maps of it."""
