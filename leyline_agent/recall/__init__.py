"""Recall: what policies cut is kept, and the model may ask to see it again.

* `options`: what a user may set;
* `archive`: where cut outputs are kept;
* `stubs`: which stubs name an id, and how;
* `tool`: the tool `leyline_recall`, its declaration and its answers;
* `exchange`: what a reply that calls it becomes;
* `keeper`: all of that for one session;
* `delivery`: the response as the harness gets it.
"""
