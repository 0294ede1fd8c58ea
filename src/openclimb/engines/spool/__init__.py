"""Work in a folder: items that workers on any machine take, do, and write the results of.

`files` is the folder, `worker` who takes from it, `drive` who fills it and reads the results, `identity` how an item of
a run that died is known again.
"""
