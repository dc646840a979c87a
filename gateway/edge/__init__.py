"""The layer between the socket and the application: limits of a request's head, default headers, CORS, logging."""
