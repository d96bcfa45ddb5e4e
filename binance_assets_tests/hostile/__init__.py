"""A hostile world: nothing from outside is believed, waited for or kept without bound.

What belongs here: hostile responses, files, settings, clocks, neighbors and web pages, over real HTTP, with real files
and real processes. Where a border takes bytes, a property states that any bytes give a value or the border's error.
What does not: faults that an honest exchange has (``integration``), and the arithmetic alone (``unit``).
"""
