"""The way of docs/walkthrough.md: its steps, how they are walked, and the page that is made of what they said."""
