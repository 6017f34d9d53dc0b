"""The HTML pages: sign-in, inbox, task list, and each task's record. They need no JavaScript.

routes.py      the blueprint: sign-in, task list, task page, error pages
edge.py        shared by all pages: signed-in user, interfaces to the agent, templates
deciding.py    the inbox and the decision forms
summary.py     outcome, money, tokens and time of a task
timeline.py    the time line: axis, lanes, bars, pauses
lines.py       the table below the time line
page_texts.py  texts for the parts of a task's time; table cells for money
"""

from app.web.pages.edge import RecordsForPages, TasksForPages
from app.web.pages.routes import make_pages

__all__ = ["RecordsForPages", "TasksForPages", "make_pages"]
