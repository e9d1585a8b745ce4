"""What a model is for: one module or folder a task, one Protocol (``base``), one table. Text in, results out.

``artifact`` and everything above may import it, but only ``base`` and the table: nothing there knows a task by name.
"""
