"""`python -m localai_worker`."""

from .app.entry import main

if __name__ == "__main__":
    main()
