"""What stands between the socket and the application: limits of a request's head, headers of every answer, CORS."""
