"""Chats, and the content of earlier streams for the requests that continue them."""
