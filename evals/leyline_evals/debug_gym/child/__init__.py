"""What runs in the sandbox, in debug-gym's own Python: no other module of ours is there.

It is started as `python -c "from child.main import main; main()"` beside this folder.
"""
