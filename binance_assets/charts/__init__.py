"""Charts: pictures of candles and of coverage as PNG, drawn by Matplotlib, which is an extra.

Here belongs drawing. What does not belong here: which rows a chart has, and where it is shown.
"""
