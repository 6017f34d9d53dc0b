"""Gets and runs the Dapr runtime; standard library only, since it runs before any package is installed.

__main__.py                                   the commands behind the Makefile
prerequisites.py                              what the machine must have, with the remedy
set_up.py virtualenv.py programs.py go_build.py   the virtual environment and the Dapr programs
processes.py die_with_parent.py family.py              start, watch and stop programs so that none is left behind
control_plane.py                              sentry, placement and scheduler
launch.py apps.py ports.py                    run the two apps of dapr.yaml; with PyYAML, so in the environment
stack.py stack_commands.py render.py          the same programs, one by one, for tests and crash drills
loopback.py listeners.py locks.py state.py    ports, sockets, one at a time, the state folder
reload.py                                     has the agent's sidecar read its files again
progress.py follow.py versions.py problems.py paths.py   small parts
"""
