"""The agent's HTTP interface: a JSON API for programs and HTML pages for people.

api/route_table.py  each route's method, path, role, models and statuses; the OpenAPI document, made from them
api/binding.py      connects the route table to Flask: authentication, parsing, response
api/handlers.py     the routes' functions, independent of Flask
api/messages.py     request and response models that only the API uses
api/problems.py     errors as application/problem+json (RFC 9457)
pages/              sign-in, inbox, tasks, records
front.py            the agent's public address, which may be a reverse proxy's
signin.py           the session cookie of the pages
factory.py          create_app
server.py           waitress in a background thread
"""
