"""Programs that load an export with the tool's own loader, each in the environment of the tool.

A program takes the folder of the export and what it should load, and prints one line of JSON per candle: the open time
in ms UTC, the four prices, and the volume.
"""
