"""Read pages with a serving engine: a server with the API of OpenAI, such as vLLM, SGLang or transformers.

options.py   the options of the command line; needs neither torch nor httpx
requests.py  page + prompt + mode + server -> the JSON of a request, a pure function
answers.py   the JSON of an answer -> a Reading; nothing in it is trusted
client.py    HTTP: limits on time and size, back-off, the key
failures.py  classes of failures, and how long to wait
deadline.py  the limit on the whole of a request
probe.py     which server, model and template; a test picture; whether the n-gram guard works
reader.py    EngineReader: what Reader is for the kit's own network
"""
