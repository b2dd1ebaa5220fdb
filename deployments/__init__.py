"""Operating swath: `make up` and `make down`, what is applied to a server, and how it is told when something goes wrong."""
