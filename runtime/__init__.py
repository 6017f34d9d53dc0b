"""Installs and runs the Dapr runtime. Commands that run before set-up use the standard library only.

__main__.py                                       the commands behind the Makefile
prerequisites.py                                  what the machine must have, with remedies
set_up.py virtualenv.py programs.py go_build.py   the virtual environment and the Dapr programs
processes.py die_with_parent.py signals.py        start, watch and stop programs so that none is left behind
control_plane.py                                  sentry, placement and scheduler
launch.py apps.py ports.py                        run the two apps of dapr.yaml, in the virtual environment
stack.py stack_commands.py                        the same programs, one by one, for tests and crash drills
loopback.py locks.py state.py                     ports and sockets, file locks, the state folder
reload.py                                         makes the agent's sidecar read its files again
progress.py errors.py paths.py                    progress lines, errors with remedies, folders
"""
