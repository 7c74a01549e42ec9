"""A running lab in the browser: who may ask (`guard`), what (`site`), what happens meanwhile (`events`), and the server."""
