"""The page in the browser.

``service`` is what it does with a photograph, ``desk`` the line in which photographs wait, ``app`` what it answers to
requests and which it refuses, ``server`` how it runs. ``static`` holds the page itself: one file each of HTML, CSS and
JavaScript, and two photographs to try it with.
"""
