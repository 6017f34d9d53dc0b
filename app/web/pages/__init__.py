"""The pages: what a task did, used and cost, for people at a browser; they work without a script.

routes.py     the blueprint: sign-in, the list of tasks, a task's record; errors as pages
edge.py       what all pages share: who is signed in, what they need of the agent
deciding.py   the inbox and the forms of decisions
summary.py    how the task ended, its money, tokens and time
timeline.py   the drawing: time axis, lanes, bars, pauses
lines.py      the table with the same content
page_words.py what a task was doing, in words; its money as cells
"""

from app.web.pages.edge import RecordsForPages, TasksForPages
from app.web.pages.routes import make_pages

__all__ = ["RecordsForPages", "TasksForPages", "make_pages"]
