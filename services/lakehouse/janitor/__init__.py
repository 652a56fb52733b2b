"""The janitor: calls contracts on a timetable. It owns nothing and writes nothing.

Whatever it asks for could be asked for by anybody, at any time, and does no harm when it is asked
for twice: several janitors may run. All that it remembers may be forgotten.
"""
