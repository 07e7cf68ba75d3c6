"""`leyline proxy`: a harness is managed by changing its base URL, in any language.

Requests to complete a chat become turns of a session; everything else goes through as it is. What
a session does not touch keeps its bytes, in requests, answers and streams.
"""
