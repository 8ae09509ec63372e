"""What voicebus is installed with: locks with hashes, and what is known of the packages in them.

`setup.cfg` says what is depended on; everything here follows from it. `make lock` writes the locks, the
licences and the bill of materials anew, `make audit` asks whether a pinned release is known to be vulnerable.
"""
