"""The page in the browser: ``service`` is what it does, ``page`` how it looks, ``server`` how it runs."""
