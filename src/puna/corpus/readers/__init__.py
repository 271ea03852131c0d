"""One file per raw format. Each has `read(path)`, which gives every record of a raw file as Found or Skipped, in order.

A bad record is skipped with a short fixed reason. A file that breaks off or is not of its format gives what can be read and then
raises UserError saying where; no other exception leaves a reader, whatever the file holds.
"""
