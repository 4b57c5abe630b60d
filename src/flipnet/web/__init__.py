"""The web app behind `flipnet serve`: a page for people, the same jobs for programs, on one machine."""
