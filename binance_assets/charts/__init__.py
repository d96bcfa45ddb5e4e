"""Charts: candles as an interactive page, and candles and coverage as PNG. Their libraries are an extra.

Here belongs drawing, by Bokeh and Matplotlib. What does not belong here: which rows a chart has, and where it is shown.
"""
