"""The server of `tinymu serve`: an API in OpenAI's form, and a page for the browser."""
