"""What every room uses: seeded draws, flat segments, files that are whole at any moment."""
