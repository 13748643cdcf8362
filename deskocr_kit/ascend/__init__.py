"""Knowledge about Ascend software as data: errors, versions, dispatch tables, profiles.

Uses the standard library only.
"""
