"""descriptor"""
