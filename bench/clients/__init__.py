"""Load clients that people use already, run beside ours against one server: do the numbers agree?

`command` is the way in, `session` runs one client after the other, `compare` judges. Each client's
module knows its command line and its result file, and says where its words mean something else.
"""
