"""CoSpaDi: weight matrices as sparse combinations of the atoms of a dictionary that calibration data choose."""
