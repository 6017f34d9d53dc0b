"""The agent over HTTP: a JSON API described by the table that serves it, and pages for people.

api/route_table.py  the table: method, path, role, models and statuses of each route; the OpenAPI document made from it
api/binding.py      binds the table to Flask: token, tenant, query and body into models, answer
api/handlers.py     what each route does, without Flask
api/messages.py     the bodies that only the API uses
api/problems.py     every error as application/problem+json (RFC 9457)
pages/              sign-in, tasks, records, decisions as HTML
front.py            the agent's public address, also behind a reverse proxy
factory.py          create_app
server.py           the socket: waitress in a background thread
"""
